"""Trial cases; pytest runs them too."""

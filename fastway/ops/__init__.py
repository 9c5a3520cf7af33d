"""What an operator has of a running gateway: its log, its commands, its figures, its pid file.

Rule: this package reads the gateway through `snapshot` alone, and changes it through commands.
"""

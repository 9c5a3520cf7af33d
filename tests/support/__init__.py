"""What tests share, each file one thing.

Rule: no test module imports another; what two of them need is here, and nothing here is a test.
"""

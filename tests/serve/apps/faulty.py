"""
A module that raises.
"""

raise ValueError("two\nlines")

"""
Bytes <-> Stream. Knows HTTP, knows no ASGI.
"""

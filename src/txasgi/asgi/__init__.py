"""
Stream <-> application. Knows ASGI, knows no wire.
"""

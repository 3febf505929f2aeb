"""
RFC 6455 without a connection.
"""

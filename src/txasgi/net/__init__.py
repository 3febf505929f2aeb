"""
Sockets and TLS, worn as Twisted transports.
"""

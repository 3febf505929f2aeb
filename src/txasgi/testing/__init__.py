"""
What the project tests itself with, for those who write wires, endpoints or applications: transports in memory, a server
without sockets and with a clock that is moved by hand, scripted applications, and the conformance suite of a wire.
"""

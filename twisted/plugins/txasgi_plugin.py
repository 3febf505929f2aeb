"""
`twistd --reactor=txasgi`: asyncio on uvloop. Names only; nothing of txasgi is imported until it is asked for.
"""

from twisted.application.reactors import Reactor

txasgi_reactor = Reactor("txasgi", "txasgi.net.twistd_reactor", "asyncio on uvloop, as txasgi runs it")

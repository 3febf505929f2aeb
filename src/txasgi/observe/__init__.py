"""
Told about Outcomes, tells the world.
"""

"""The address-space schemes side by side: what each costs, what each can do, what each withstands.

Every figure and every verdict is taken from a run. A cell says with which command it can be had again.
"""

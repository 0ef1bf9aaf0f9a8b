"""The nouns of the harness as frozen values, without effects.

``campaign`` and ``site`` are what a person writes, and need pydantic. ``case``, ``attempt``,
``event``, ``metrics`` and ``verdict`` are what travels into jobs and onto laptops, and need the
standard library only; import the module you need, so that a compute node pays for nothing else.
"""

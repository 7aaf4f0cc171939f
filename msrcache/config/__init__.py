"""The configuration file and the REGISTRY_* environment, checked and typed.

model.py is what can be said and the defaults, load.py reads it, check.py is the command. The rest serves:
document.py (YAML with places), environment.py (variables), survey.py (unknown keys), validate.py (types), and
rules.py (keys against each other), masking.py (secrets). No other part of the cache is imported.
"""

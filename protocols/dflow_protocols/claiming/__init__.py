"""Who runs what. Read roster.py (who a step is dealt to), deal.py (which unit is whose), then orphan.py."""

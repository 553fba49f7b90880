"""Who runs what: whom a unit is dealt to (deal), who can run it (ability), what was stolen (loans), what failed."""

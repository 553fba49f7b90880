"""A run told on one page. `gathered.py`: what is asked for; `spans.py`, `clocks.py`, `critical.py`: what each step
waited for; `bottleneck.py`: that in sentences; `figures.py`: the report, as data; `page/`: the same as HTML."""

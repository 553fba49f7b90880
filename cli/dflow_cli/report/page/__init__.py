"""A report as one HTML file: `page.py` puts it together, `report.html` says what stands where, and charts are shapes
(`shapes.py`) made from data by `charts.py`, `timeline.py` and `graph.py`."""

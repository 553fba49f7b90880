"""What a person sees: live view, graph, curves, tables of figures, reports."""

"""siiRL's pipelines and settings, as siiRL has them: read from whatever form they are written in."""

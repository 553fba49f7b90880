"""The emulated engine: engine.py keeps the contract, payload.py says what it makes, profile.py how long that takes."""

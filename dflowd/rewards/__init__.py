"""Rewards that many need: functions like those of a user, named in a spec by `dflowd.rewards.MODULE:FUNCTION`."""

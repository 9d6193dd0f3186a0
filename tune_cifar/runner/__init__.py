"""Ray Tune: the only room that schedules trials."""

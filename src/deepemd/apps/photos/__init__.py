"""A folder of the user's own photos: fit, predict, check, and the pages that show why."""

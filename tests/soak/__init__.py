"""A soak of the quotas: many raced reservations while processes, connections and Redis die."""

"""Groups, access levels and licences, as one SQL predicate."""

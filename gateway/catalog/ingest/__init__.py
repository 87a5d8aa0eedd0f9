"""Taking STAC catalogues and REGARDS features into the catalogue.

`ingest` is the way in. Reading (`reading`, `jsonstream`), the rules (`stac`, `regards`, `hrefs`, `assets`,
`checksums`, `extent`, `placing`; no I/O), asking storages (`inspection`, `sums`, `asking`) and the database
(`writing`) meet in `run` only.
"""

from gateway.catalog.ingest.events import (
    Count,
    Event,
    IngestError,
    Place,
    Progress,
    Rejection,
    Remark,
    SourceError,
    Summary,
)
from gateway.catalog.ingest.run import ingest

__all__ = [
    "Count",
    "Event",
    "IngestError",
    "Place",
    "Progress",
    "Rejection",
    "Remark",
    "SourceError",
    "Summary",
    "ingest",
]

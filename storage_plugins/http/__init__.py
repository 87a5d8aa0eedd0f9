"""Files on web servers, and the HTTP client that other plug-ins fetch bytes by."""

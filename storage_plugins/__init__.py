"""Storage plug-ins that come with the gateway: each implements capabilities of gateway.storage."""

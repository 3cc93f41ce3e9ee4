"""The gateway: what customers come through. Its configuration is made of what the services' routes declare."""

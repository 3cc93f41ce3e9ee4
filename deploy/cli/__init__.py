"""The `cartwright` command: thin verbs over `deploy.local` and the services' public surfaces."""

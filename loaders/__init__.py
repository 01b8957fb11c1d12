"""HOW it is read: one loader per mode, each a schema.loader.Loader. Opens no client: app/clients.py does."""

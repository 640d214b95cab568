"""The web console: pages for people who would rather look than type. Loopback, and no value of any person on it."""

"""What operators see of running processes: metrics, health, traces, and the dashboards and alert rules made of them."""

"""`sqlmetrics demo`: a real gunicorn, real requests, a killed worker, and every number checked."""

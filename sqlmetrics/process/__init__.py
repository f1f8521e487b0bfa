"""Processes: forks, threads of the system, and what is special about both in uWSGI."""

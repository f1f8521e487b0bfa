"""What a process is to this package: forks, threads of the system, and what uWSGI makes of both."""

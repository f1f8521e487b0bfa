"""The `gunicorn` program of whichever gunicorn this Python finds: a file, so that USR2 can start it again."""

from gunicorn.app.wsgiapp import run

if __name__ == "__main__":
    run()

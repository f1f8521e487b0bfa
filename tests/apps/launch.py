"""The program `gunicorn` of the gunicorn that this Python finds. It is a file, so that USR2 can start it again."""

from gunicorn.app.wsgiapp import run

if __name__ == "__main__":
    run()

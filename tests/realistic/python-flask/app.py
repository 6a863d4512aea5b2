import getpass

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello():
    return f"hello from flask as {getpass.getuser()}\n"


@app.cli.command("smoke")
def smoke():
    """Asks itself once."""
    print(app.test_client().get("/").text, end="")

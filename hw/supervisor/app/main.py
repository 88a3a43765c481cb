"""What the port runs by itself after a start."""

from supervisor.app import App

App().run()

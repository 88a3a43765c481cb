from supervisor.app import App
App().run()

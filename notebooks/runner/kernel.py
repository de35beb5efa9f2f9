"""The Jupyter kernel: hands cells to `notebook-runner serve`, the engine that also runs notebooks without Jupyter.

Started by Jupyter as `python kernel.py RUNNER -f CONNECTION`; JupyterLab brings `ipykernel`, which speaks its protocol.
"""

import json
import signal
import subprocess
import sys
import threading

from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel

RUNNER = sys.argv.pop(1)


class RustKernel(Kernel):
    implementation = "topolab"
    implementation_version = "0"
    language_info = {
        "name": "rust",
        "mimetype": "text/x-rust",
        "file_extension": ".rs",
        "pygments_lexer": "rust",
        "codemirror_mode": "rust",
    }
    banner = "Rust, by evcxr"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # In a session of its own: Jupyter's interrupt goes to us, and we pass it on as a request.
        self.engine = subprocess.Popen(
            [RUNNER, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", start_new_session=True
        )
        self.writing = threading.Lock()

    def ask(self, request):
        with self.writing:
            self.engine.stdin.write(json.dumps(request) + "\n")
            self.engine.stdin.flush()

    def events(self, last):
        """The engine's events up to the one called `last`; an interrupt on the way is passed on."""
        while True:
            try:
                line = self.engine.stdout.readline()
            except KeyboardInterrupt:
                self.ask("interrupt")
                continue
            if not line:
                yield "error", {"name": "crash", "message": "the engine has ended", "traceback": ["the engine has ended; restart the kernel"]}
                return
            try:
                event = json.loads(line)
            except ValueError:
                continue  # evcxr has a word of its own now and then
            name, content = (event, None) if isinstance(event, str) else next(iter(event.items()))
            yield name, content
            if name == last:
                return

    def do_execute(self, code, silent, store_history=True, user_expressions=None, allow_stdin=False, **kwargs):
        failure = None
        if code.strip():
            self.ask({"execute": code})
            for name, content in self.events("done"):
                if name == "error":
                    failure = {"ename": content["name"], "evalue": content["message"], "traceback": content["traceback"]}
                if not silent:
                    self.show(name, content)
        if failure:
            return {"status": "error", "execution_count": self.execution_count, **failure}
        return {"status": "ok", "execution_count": self.execution_count, "payload": [], "user_expressions": {}}

    def show(self, name, content):
        if name == "stream":
            self.send_response(self.iopub_socket, "stream", content)
        elif name == "result":
            message = {"execution_count": self.execution_count, "data": content, "metadata": {}}
            self.send_response(self.iopub_socket, "execute_result", message)
        elif name == "error":
            message = {"ename": content["name"], "evalue": content["message"], "traceback": content["traceback"]}
            self.send_response(self.iopub_socket, "error", message)

    def do_complete(self, code, cursor_pos):
        self.ask({"complete": {"code": code, "position": cursor_pos}})
        found = {"matches": [], "start": cursor_pos, "end": cursor_pos}
        for name, content in self.events("completions"):
            if name == "completions":
                found = content
        return {
            "status": "ok",
            "matches": found["matches"],
            "cursor_start": found["start"],
            "cursor_end": found["end"],
            "metadata": {},
        }

    def do_shutdown(self, restart):
        try:
            self.ask("quit")  # it tidies up by itself
        except OSError:
            pass  # gone already
        return {"status": "ok", "restart": restart}


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    IPKernelApp.launch_instance(kernel_class=RustKernel)

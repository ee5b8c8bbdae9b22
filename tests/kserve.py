"""A server of one model on the loopback that speaks the Open Inference Protocol (KServe v2)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import numpy as np

KINDS: dict[str, type[np.generic]] = {'FP32': np.float32, 'UINT8': np.uint8}
NAMES = {np.dtype(np.float32): 'FP32', np.dtype(np.int64): 'INT64', np.dtype(np.int32): 'INT32'}


@contextmanager
def serving(name: str, runtime: Any) -> Iterator[str]:
    """Serve a runtime as the model ``name``; yield the address.

    Requests are those of the protocol with its extension for binary data, which Triton and OpenVINO
    Model Server have; any other is answered with status 400.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers['Content-Length']))
            try:
                assert self.path == f'/v2/models/{name}/infer', self.path
                length = int(self.headers['Inference-Header-Content-Length'])
                answer, status = _infer(json.loads(body[:length]), body[length:], runtime), 200
            except Exception as error:
                answer, status = {'error': f'{type(error).__name__}: {error}'}, 400
            text = json.dumps({'model_name': name, 'model_version': '1', **answer}).encode()
            self.send_response(status)
            self.send_header('Content-Type', 'application/json')
            self.send_header('Content-Length', str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(('127.0.0.1', 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_port}'
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _infer(request: dict[str, Any], data: bytes, runtime: Any) -> dict[str, Any]:
    (tensor,) = request['inputs']
    assert tensor['name'] == 'images'
    assert tensor['parameters']['binary_data_size'] == len(data)
    images = np.frombuffer(data, KINDS[tensor['datatype']]).reshape(tensor['shape'])
    return {
        'outputs': [
            {
                'name': key,
                'datatype': NAMES[array.dtype],
                'shape': list(array.shape),
                'data': array.ravel().tolist(),
            }
            for key, array in runtime(images).items()
        ]
    }

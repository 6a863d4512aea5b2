import socket
import tempfile
import unittest

from app import square


class Tests(unittest.TestCase):
    def test_square(self):
        self.assertEqual(square(3), 9)

    def test_scratch_space_is_given(self):
        with tempfile.NamedTemporaryFile() as file:
            self.assertTrue(file.name.startswith("/scratch/"))

    def test_loopback_is_up(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            with socket.create_connection(server.getsockname(), timeout=5) as client:
                served, _ = server.accept()
                with served:
                    served.sendall(b"hi")
                self.assertEqual(client.recv(2), b"hi")

    def test_nothing_else_is_reached(self):
        with self.assertRaises(OSError):
            socket.create_connection(("192.0.2.1", 80), timeout=1)


if __name__ == "__main__":
    unittest.main()

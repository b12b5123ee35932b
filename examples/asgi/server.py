"""An ASGI app, written with asgineer and served by uvicorn on the default port."""

import asgineer


@asgineer.to_asgi
async def main(request):
    return f"Hello from {request.host}, which was asked for {request.path}\n"


if __name__ == "__main__":
    asgineer.run(main, "uvicorn", "0.0.0.0:80")

"""An uvloop that nobody can use: uvicorn would take it instead of asyncio, whose transports the server's limits need."""

"""Talks to an MCP endpoint as the official SDK does: in the newest protocol and in the one with a handshake.

Arguments: address, token. Standard input: a list of calls [tool, arguments]. Standard output: what came back.
"""

import asyncio
import json
import sys

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client


async def call(client, name, arguments):
    try:
        result = await client.call_tool(name, arguments)
    except Exception as error:
        return {"exception": str(error)}
    return {"error": bool(result.is_error), "text": "".join(part.text for part in result.content)}


async def talk(mode, address, token, calls):
    headers = {"authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        async with Client(streamable_http_client(address, http_client=http), mode=mode) as client:
            tools = (await client.list_tools()).tools
            resources = (await client.list_resources()).resources
            return {
                "protocol": str(client.protocol_version),
                "tools": {tool.name: tool.model_dump(mode="json", by_alias=True) for tool in tools},
                "calls": [await call(client, *one) for one in calls],
                "resources": {
                    str(resource.uri): (await client.read_resource(resource.uri)).contents[0].text
                    for resource in resources
                },
            }


async def main():
    address, token = sys.argv[1:]
    calls = json.load(sys.stdin)
    answers = {mode: await talk(mode, address, token, calls) for mode in ("auto", "legacy")}
    json.dump(answers, sys.stdout)


asyncio.run(main())

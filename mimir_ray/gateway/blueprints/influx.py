"""Influx line protocol: `POST /api/v1/push/influx/write`, where it is enabled. Upstream: pkg/distributor/influx.go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sanic import Blueprint, HTTPResponse, Request

from mimir_ray.errors import LimitExceeded, MimirRayError
from mimir_ray.gateway.blueprints.push import failed, with_delay
from mimir_ray.gateway.errors import text
from mimir_ray.gateway.services import services_of
from mimir_ray.wire.compression import UnsupportedEncoding, decompress
from mimir_ray.wire.influx import parse_lines
from mimir_ray.wire.remote_write import encode_write_request

PATH = "/api/v1/push/influx/write"


@dataclass(eq=False)
class InfluxRequestTooLarge(LimitExceeded):
    """Upstream: pkg/distributor/influx.go, answered as 413."""

    id: ClassVar[str] = "distributor-max-influx-request-size"
    flags: ClassVar[tuple[str, ...]] = ("distributor.max-influx-request-size",)
    per_instance: ClassVar[bool] = True
    actual: int
    allowed: int

    def describe(self) -> str:
        return (
            f"the incoming Influx request has been rejected because its message size of {self.actual} bytes is larger "
            f"than the allowed limit of {self.allowed} bytes"
        )


def blueprint() -> Blueprint:
    routes = Blueprint("influx")
    routes.add_route(write, PATH, methods=("POST",), name="write")
    return routes


async def write(request: Request) -> HTTPResponse:
    """Answers 204 when a quorum of each series' ingesters has the samples in its WAL."""
    services = services_of(request)
    try:
        tenant = services.auth.tenant(request)
        encoding = request.headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise UnsupportedEncoding(encoding)
        bytes_max = int(services.settings.distributor.max_influx_request_size)
        body = decompress(request.body, encoding, bytes_max, InfluxRequestTooLarge)
        series = parse_lines(body, request.args.get("precision", ""), services.clock.now_ms())
        outcome = await services.distributor.push(tenant, encode_write_request(series), version="influx")
        if outcome.error is not None:
            return failed(outcome.error, request)
        return with_delay(HTTPResponse(status=204), outcome)
    except InfluxRequestTooLarge as error:
        return text(str(error), 413)
    except MimirRayError as error:
        return failed(error, request)
    except Exception as error:  # noqa: BLE001  (the edge)
        return failed(error, request)

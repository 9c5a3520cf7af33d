/** Talk to game servers through a fastway gateway, over WebSocket. */
export { Connection } from "./connection.js";
export { BadText, ConnectFailed, ConnectionClosed, ConnectTimeout, DialFailed, DialRefused, DialTimeout, FastwayError, GatewayClosed, GatewayLost, MessageTooLarge, PingTimeout, ProtocolError, ReceiveQueueFull, SendQueueFull, } from "./errors.js";
export { connect, Gateway } from "./gateway.js";

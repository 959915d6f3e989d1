// usage: uwebsockets PORT
//
// Echo and broadcast by µWebSockets: its own publish and subscribe, messages passed on as they came. Limits are those
// of its examples, but for the size of messages and no idle timeout.

#include "App.h"
#include <cstdlib>
#include <iostream>

struct Nothing {};

int main(int argc, char **argv) {
    if (argc != 2) {
        std::cerr << "usage: uwebsockets PORT (0: the system chooses)" << std::endl;
        return 1;
    }
    uWS::App app;
    uWS::App::WebSocketBehavior<Nothing> echo = {
        .compression = uWS::DISABLED,
        .maxPayloadLength = 16 * 1024 * 1024,
        .idleTimeout = 0,
        .maxBackpressure = 64 * 1024 * 1024,
        .sendPingsAutomatically = false,
        .message = [](auto *ws, std::string_view message, uWS::OpCode opcode) { ws->send(message, opcode); },
    };
    uWS::App::WebSocketBehavior<Nothing> broadcast = {
        .compression = uWS::DISABLED,
        .maxPayloadLength = 16 * 1024 * 1024,
        .idleTimeout = 0,
        .maxBackpressure = 64 * 1024 * 1024,
        .sendPingsAutomatically = false,
        .open = [](auto *ws) { ws->subscribe("all"); },
        .message = [&app](auto *, std::string_view message, uWS::OpCode opcode) { app.publish("all", message, opcode); },
    };
    app.ws<Nothing>("/echo", std::move(echo)).ws<Nothing>("/broadcast", std::move(broadcast));
    app.listen("127.0.0.1", std::atoi(argv[1]), [](auto *socket) {
        if (socket) {
            int port = us_socket_local_port(0, (us_socket_t *)socket);
            std::cout << "uwebsockets listening on http://127.0.0.1:" << port << "/" << std::endl;
        }
    });
    app.run();
    std::cerr << "uwebsockets: can't listen on port " << argv[1] << std::endl;
    return 1;
}

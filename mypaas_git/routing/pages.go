// Package pages answers visitors when no service can.
//
// Traefik interprets this file: it has no way of its own to answer with a text, and a
// server of pages beside it would be one more thing to reach, and to be away.
package pages

import (
	"context"
	"fmt"
	"net/http"
)

// Config names the page.
type Config struct {
	Page string
}

// A page, with the seconds after which it is worth while to come again; 0 says nothing.
type page struct {
	status int
	after  int
	title  string
	text   string
}

var pages = map[string]page{
	"unknown": {
		404, 0, "Nothing is here",
		"There is no site at this address. Please check how it is spelt.",
	},
	"down": {
		503, 10, "Back in a moment",
		"This site does not answer right now. Please try again in a moment.",
	},
	"maintenance": {
		503, 300, "Under maintenance",
		"This site is being worked on and will be back soon.",
	},
	"stopped": {
		503, 300, "Switched off",
		"This site is switched off at present.",
	},
}

// What visitors send is no part of it.
const layout = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex">
<title>%[1]s</title>
<style>
:root { color-scheme: light dark }
body { font: 1.1rem/1.6 system-ui, sans-serif; max-width: 32rem; margin: 20vh auto; padding: 0 1.5rem }
h1 { font-size: 1.6rem }
</style>
</head>
<body>
<h1>%[1]s</h1>
<p>%[2]s</p>
</body>
</html>
`

// CreateConfig is asked by Traefik for the configuration to fill in.
func CreateConfig() *Config {
	return &Config{}
}

// New is asked by Traefik for each middleware of the configuration.
func New(_ context.Context, _ http.Handler, config *Config, _ string) (http.Handler, error) {
	shown, known := pages[config.Page]
	if !known {
		return nil, fmt.Errorf("there is no page %q", config.Page)
	}
	body := []byte(fmt.Sprintf(layout, shown.title, shown.text))
	return http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		header := answer.Header()
		header.Set("Content-Type", "text/html; charset=utf-8")
		header.Set("Content-Length", fmt.Sprint(len(body)))
		header.Set("Cache-Control", "no-store")
		header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		header.Set("X-Content-Type-Options", "nosniff")
		if shown.after > 0 {
			header.Set("Retry-After", fmt.Sprint(shown.after))
		}
		answer.WriteHeader(shown.status)
		if request.Method != http.MethodHead {
			answer.Write(body)
		}
	}), nil
}

// Package config applies one document, in YAML or JSON, to a registry: services, groups, failure domains and
// providers. A change is planned before it is applied, and it is applied at one moment or not at all.
//
//	required: [llm]
//	domains:
//	  openai-key: {limits: {max_concurrent: 8}}
//	services:
//	  llm:
//	    groups:
//	      0: {strategy: ROUND_ROBIN}
//	    providers:
//	      - name: primary
//	        kind: openai
//	        settings: {model: gpt-4o, key: "${env:OPENAI_API_KEY}"}
//	        domain: openai-key
//	        breaker: {failure_threshold: 3, recovery_timeout: 2m}
//
// [Parse] and [Load] read a document strictly: each unknown field and each wrong value is one of the problems of an
// [Error], with file, line, column and the nearest name.
//
// Durations are texts such as "1m30s", and sizes texts such as "16MiB" ([Size]). Anchors, aliases and merge keys of
// YAML work; keys of the top level that begin with "x-" hold what is only referred to. A document of a file may
// include others, by paths relative to it. Components of the program start in the order that the document says, by
// [Document.Arrange].
package config

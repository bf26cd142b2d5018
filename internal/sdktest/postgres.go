package sdktest

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/stdlib"
)

func postgresClients() []Client {
	return []Client{{
		Name: "database/sql, pgx", Module: "github.com/jackc/pgx/v5", Retries: "database/sql tries again only where nothing was sent",
		try: tryPostgres,
	}}
}

// sqlStates has the codes that are nearest to the faults.
//
//nolint:gochecknoglobals // immutable data
var sqlStates = map[string]string{
	"400": "42601", "401": "28P01", "403": "42501", "404": "42P01", "404 model": "3D000", "408": "57014", "409": "23505",
	"422": "22P02", "500": "XX000", "501": "0A000", "503": "57P03", "529": "53300", "read only": "25006", "deadlock": "40001",
}

// atStart reports whether the fault is one with which a server refuses the connection.
func atStart(fault Fault) bool {
	return slices.Contains([]string{"401", "404 model", "503", "529"}, fault.Name)
}

// postgres plays one fault to clients of PostgreSQL.
type postgres struct {
	fault    Fault
	tls      *tls.Config
	requests atomic.Int64
}

func tryPostgres(ctx context.Context, fault Fault) (Outcome, error) {
	_, known := sqlStates[fault.Name]
	if !known && fault.Trouble == None && fault.Problem != NoRows || fault.Trouble == HTML || fault.Trouble == InStream {
		return Outcome{}, nil
	}
	s := &postgres{fault: fault}
	if fault.Trouble == BadTLS {
		https := httptest.NewTLSServer(http.NotFoundHandler())
		s.tls = https.TLS
		https.Close()
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return Outcome{}, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var sessions sync.WaitGroup
		defer sessions.Wait()
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() {
				_ = s.serve(ctx, connection)
				_ = connection.Close()
			})
		}
	}()
	err, failed := askPostgres(ctx, fault, listener.Addr().String())
	_ = listener.Close()
	<-done
	return Outcome{Played: true, Err: err, Requests: s.requests.Load()}, failed
}

// serve opens one session and lets its first query fail.
func (s *postgres) serve(ctx context.Context, connection net.Conn) error {
	backend := pgproto3.NewBackend(connection, connection)
	if begun, err := s.begin(ctx, connection, backend); !begun {
		return err
	}
	for {
		message, err := backend.Receive()
		if err != nil {
			return err
		}
		query, ok := message.(*pgproto3.Query)
		if !ok {
			continue
		}
		if query.String != "-- ping" {
			s.requests.Add(1)
			if done, err := s.answer(connection, backend); done {
				return err
			}
		}
		backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if err := backend.Flush(); err != nil {
			return err
		}
	}
}

// begin opens the session, unless that is what fails.
func (s *postgres) begin(ctx context.Context, connection net.Conn, backend *pgproto3.Backend) (begun bool, err error) {
	for wanted := true; wanted; {
		begin, err := backend.ReceiveStartupMessage()
		if err != nil {
			return false, err
		}
		switch begin.(type) {
		case *pgproto3.CancelRequest:
			return false, nil
		case *pgproto3.SSLRequest:
			if s.tls != nil {
				return false, s.handshake(ctx, connection)
			}
			if _, err := connection.Write([]byte{'N'}); err != nil {
				return false, err
			}
		default:
			wanted = false
		}
	}
	if atStart(s.fault) {
		s.requests.Add(1)
		backend.Send(s.refusal())
		return false, backend.Flush()
	}
	backend.Send(&pgproto3.AuthenticationOk{})
	backend.Send(&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"})
	backend.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	backend.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return true, backend.Flush()
}

// handshake shows the client a certificate that it does not trust.
func (s *postgres) handshake(ctx context.Context, connection net.Conn) error {
	if _, err := connection.Write([]byte{'S'}); err != nil {
		return err
	}
	return tls.Server(connection, s.tls).HandshakeContext(ctx)
}

func (s *postgres) refusal() *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{Severity: "ERROR", Code: sqlStates[s.fault.Name], Message: "text of the server"}
}

// answer answers a query, and reports whether that was the last one.
func (s *postgres) answer(connection net.Conn, backend *pgproto3.Backend) (last bool, err error) {
	switch s.fault.Trouble {
	case Reset:
		if tcp, ok := connection.(*net.TCPConn); ok {
			return true, tcp.SetLinger(0)
		}
	case Cut:
		_, err := connection.Write([]byte{'T', 0, 0, 1, 0, 0, 1})
		return true, err
	case Hangs:
		_, err := backend.Receive() // until the client gives up
		return true, err
	default:
	}
	if s.fault.Problem == NoRows {
		backend.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("n"), DataTypeOID: 23, DataTypeSize: 4}}})
		backend.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 0")})
		return false, nil
	}
	backend.Send(s.refusal())
	return false, nil
}

func askPostgres(ctx context.Context, fault Fault, address string) (err, failed error) {
	p, end, failed := placeOf(ctx, fault, "postgres://"+address)
	if failed != nil {
		return nil, failed
	}
	defer end()
	mode := "disable"
	if fault.Trouble == BadTLS {
		mode = "verify-full"
	}
	config, failed := pgx.ParseConfig("postgres://user:secret@" + p.host() + "/name?default_query_exec_mode=simple_protocol&sslmode=" + mode)
	if failed != nil {
		return nil, failed
	}
	config.DialFunc = p.dial
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	database := stdlib.OpenDB(*config)
	defer func() { failed = errors.Join(failed, database.Close()) }()
	if fault.Trouble == Hangs {
		if failed = database.PingContext(ctx); failed != nil {
			return nil, failed
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	var number int
	err = database.QueryRowContext(ctx, "select n from t").Scan(&number)
	return err, nil
}
